/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once
#define PAGE_SIZE 4096

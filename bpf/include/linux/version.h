/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once
/* The oldest kernel that we support; BCC chooses declarations by it. */
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)

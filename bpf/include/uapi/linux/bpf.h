/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once
/* Nothing of it is needed; BCC includes it. */

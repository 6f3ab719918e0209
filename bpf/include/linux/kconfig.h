/* SPDX-License-Identifier: GPL-2.0-or-later */
#pragma once
/* BCC includes this before all else and insists on the first of these. */
#define CONFIG_BPF_SYSCALL 1
#ifndef __KERNEL__
#define __KERNEL__ 1
#endif
#include <linux/types.h>

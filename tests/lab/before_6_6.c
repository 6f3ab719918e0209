/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a kernel before 6.6 answers to who wants a tcx link: preloaded into a process, this stands
 * between its libbpf and the kernel.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <sys/syscall.h>

/* enum bpf_attach_type; the headers may be older than it. */
#define TCX_INGRESS 46
#define TCX_EGRESS 47

long syscall(long number, ...)
{
	static long (*kernel)(long, ...);
	long argument[6];
	va_list list;

	va_start(list, number);
	for (int i = 0; i < 6; i++)
		argument[i] = va_arg(list, long);
	va_end(list);
	if (number == SYS_bpf && argument[0] == BPF_LINK_CREATE) {
		const union bpf_attr *attr = (const union bpf_attr *)argument[1];

		if (attr->link_create.attach_type == TCX_INGRESS ||
		    attr->link_create.attach_type == TCX_EGRESS) {
			errno = EINVAL;
			return -1;
		}
	}
	if (!kernel)
		kernel = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	return kernel(number, argument[0], argument[1], argument[2], argument[3], argument[4],
		      argument[5]);
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System calls as 32-bit programs make them, from a 64-bit process: int 0x80 is the door of i386. What
 * they point to must lie below 4 GB.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __x86_64__

#define I386_SOCKET 359
#define I386_GETSOCKOPT 365
#define I386_SETSOCKOPT 366
#define PAGE 4096

static long call(long number, long a, long b, long c, long d, long e)
{
	long result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
			 : "memory", "r8", "r9", "r10", "r11");
	return (int)result;
}

static void *low_page(void)
{
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

	return page == MAP_FAILED ? NULL : page;
}

/* A descriptor, or minus an errno. */
long compat_socket(int family, int type, int protocol)
{
	return call(I386_SOCKET, family, type, protocol, 0, 0);
}

/* 0, or minus an errno. */
long compat_setsockopt(int fd, int level, int option, const void *value, unsigned int size)
{
	void *page = low_page();
	long result;

	if (!page)
		return -ENOMEM;
	memcpy(page, value, size);
	result = call(I386_SETSOCKOPT, fd, level, option, (long)page, size);
	munmap(page, PAGE);
	return result;
}

/* The value of an option of four bytes, or minus an errno. */
long compat_getsockopt(int fd, int level, int option)
{
	char *page = low_page();
	unsigned int value;
	long result;

	if (!page)
		return -ENOMEM;
	*(unsigned int *)(page + 64) = sizeof(value);
	result = call(I386_GETSOCKOPT, fd, level, option, (long)page, (long)page + 64);
	memcpy(&value, page, sizeof(value));
	munmap(page, PAGE);
	return result ? result : (long)value;
}

#else

long compat_socket(int family, int type, int protocol)
{
	return -ENOSYS;
}

long compat_setsockopt(int fd, int level, int option, const void *value, unsigned int size)
{
	return -ENOSYS;
}

long compat_getsockopt(int fd, int level, int option)
{
	return -ENOSYS;
}

#endif

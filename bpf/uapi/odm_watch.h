/* SPDX-License-Identifier: MIT */
/*
 * A descriptor that wakes when what becomes of addresses may have changed. odm.h includes this:
 *
 *	int watch = odm_watch();
 *	struct pollfd poller = { watch, POLLIN, 0 };
 *
 *	while (odm_notice(fd, &notice) == 1) {
 *		...;
 *		poll(&poller, 1, odm_notice_timeout(&notice));
 *		if (!odm_watched(watch))
 *			...; // open another one
 *	}
 */
#ifndef ODM_WATCH_H
#define ODM_WATCH_H

#include "odm_setsc.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A descriptor that becomes readable when what sockets are given has changed, when the agent ends, and once at the
 * beginning. Ask odm_notice() then, after odm_watched(). One is enough for all sockets of an application. Close it
 * in the end. -1 with errno: the agent can't be reached; ask odm_notice() now and then, and try again.
 */
static inline int odm_watch(void)
{
	struct odm_wait_request_ request = { { 'O', 'D', 'M', 'n' }, 0, { 0, 0 } };
	int fd = odm_wait_open_(), error;

	if (fd == -1)
		return -1;
	if (send(fd, &request, sizeof(request), MSG_NOSIGNAL) == (ssize_t)sizeof(request))
		return fd;
	error = errno;
	close(fd);
	errno = error;
	return -1;
}

/*
 * Take from a descriptor of odm_watch() what made it readable. 1: go on watching. 0: the agent has ended, or too many
 * watch: close it, and open another one after a while (a second). Either way ask odm_notice() now.
 */
static inline int odm_watched(int watch)
{
	char words[256];
	ssize_t got;

	do
		got = recv(watch, words, sizeof(words), MSG_DONTWAIT);
	while (got > 0 || (got == -1 && errno == EINTR));
	return got == -1 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

/*
 * How long to wait at a descriptor of odm_watch(), as poll() takes it: until a notice changes by its own dates; -1: for
 * as long as it takes.
 */
static inline int odm_notice_timeout(const struct odm_address_notice *notice)
{
	uint64_t until_ns = notice->state == ODM_ADDRESS_PREFERRED ? notice->preferred_until_ns : 0;
	struct timespec now;
	uint64_t now_ns;

	if (!until_ns && notice->state != ODM_ADDRESS_OVER)
		until_ns = notice->valid_until_ns;
	if (!until_ns)
		return -1;
	clock_gettime(CLOCK_BOOTTIME, &now);
	now_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	if (until_ns <= now_ns)
		return 1;
	until_ns = (until_ns - now_ns) / 1000000 + 1;
	return until_ns > 3600000 ? 3600000 : (int)until_ns;
}

#ifdef __cplusplus
}
#endif

#endif

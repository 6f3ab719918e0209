/* SPDX-License-Identifier: GPL-2.0-or-later */
/* As much of io_uring as it takes to have one request done: a ring, one entry, its result. */
#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ENTRIES 4

struct ring {
	int fd;
	void *queues; /* submission and completion queue share one mapping */
	struct io_uring_sqe *entries;
	struct io_uring_params params;
};

static unsigned *field(struct ring *ring, unsigned offset)
{
	return (unsigned *)((char *)ring->queues + offset);
}

static void *map(struct ring *ring, size_t size, off_t what)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring->fd, what);
}

static int open_ring(struct ring *ring, unsigned flags)
{
	size_t size;

	memset(ring, 0, sizeof(*ring));
	ring->params.flags = flags;
	ring->params.sq_thread_idle = 100;
	ring->fd = syscall(__NR_io_uring_setup, ENTRIES, &ring->params);
	if (ring->fd < 0)
		return -errno;
	size = ring->params.cq_off.cqes + ring->params.cq_entries * sizeof(struct io_uring_cqe);
	ring->queues = map(ring, size, IORING_OFF_SQ_RING);
	ring->entries = map(ring, ENTRIES * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
	if (ring->queues == MAP_FAILED || ring->entries == MAP_FAILED)
		return -errno;
	return 0;
}

/* Have the 64 bytes at `entry` done; the request's result, or -errno. */
int uring_do(unsigned flags, const void *entry)
{
	struct io_uring_cqe *done;
	struct ring ring;
	unsigned tail, want = IORING_ENTER_GETEVENTS;
	int result = open_ring(&ring, flags);

	if (result)
		return result;
	memcpy(&ring.entries[0], entry, sizeof(ring.entries[0]));
	field(&ring, ring.params.sq_off.array)[0] = 0;
	tail = *field(&ring, ring.params.sq_off.tail) + 1;
	__atomic_store_n(field(&ring, ring.params.sq_off.tail), tail, __ATOMIC_SEQ_CST);
	if (flags & IORING_SETUP_SQPOLL)
		want |= IORING_ENTER_SQ_WAKEUP;
	if (syscall(__NR_io_uring_enter, ring.fd, 1, 1, want, NULL, 0) < 0)
		result = -errno;
	done = (struct io_uring_cqe *)((char *)ring.queues + ring.params.cq_off.cqes);
	if (!result)
		result = done->res;
	close(ring.fd);
	return result;
}

/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The class that a new cgroup's path names, read on from where the cgroup above it stands. */
#ifndef ODM_PATTERNS_H
#define ODM_PATTERNS_H

static __always_inline u32 odm_byte_of(u8 byte)
{
	if (byte == '/')
		return ODM_BYTE_SLASH;
	return (byte & 0xc0) == 0x80 ? ODM_BYTE_CONTINUED : ODM_BYTE_CHARACTER;
}

/* One byte: each bit moves on if the byte may follow there, and stays where a `*` takes it. */
static __always_inline void odm_read_byte(struct odm_bits *at, const struct odm_globs *globs,
					  u8 byte)
{
	const struct odm_bits *moves = &globs->moves[byte];
	const struct odm_bits *stays = &globs->stays[odm_byte_of(byte)];
	u64 moved;
	int i;

#pragma unroll
	for (i = ODM_GLOB_WORDS - 1; i >= 0; i--) {
		moved = at->words[i] << 1;
		if (i)
			moved |= at->words[i - 1] >> 63;
		at->words[i] = (moved & moves->words[i]) | (at->words[i] & stays->words[i]);
	}
}

static __always_inline void odm_read_name(struct odm_bits *at, const struct odm_globs *globs,
					  const char *name)
{
	int i;

	for (i = 0; i < ODM_NAME_SIZE - 1; i++) {
		if (!name[i])
			break;
		odm_read_byte(at, globs, name[i]);
	}
}

static __always_inline void odm_keep_bits(struct odm_bits *at, const struct odm_bits *these)
{
	int i;

#pragma unroll
	for (i = 0; i < ODM_GLOB_WORDS; i++)
		at->words[i] &= these->words[i];
}

static __always_inline bool odm_has_bits(const struct odm_bits *at)
{
	u64 all = 0;
	int i;

#pragma unroll
	for (i = 0; i < ODM_GLOB_WORDS; i++)
		all |= at->words[i];
	return all;
}

static __always_inline u32 odm_lowest_bit(u64 word)
{
	u32 at = 0, width;

#pragma unroll
	for (width = 32; width; width >>= 1) {
		if (!(word & ((1ull << width) - 1))) {
			word >>= width;
			at += width;
		}
	}
	return at;
}

/* The first glob of the configuration that ends here: its bit, or -1. */
static __always_inline int odm_ended(const struct odm_bits *at, const struct odm_globs *globs)
{
	u64 word;
	int i;

#pragma unroll
	for (i = 0; i < ODM_GLOB_WORDS; i++) {
		word = at->words[i] & globs->ends.words[i];
		if (word)
			return i * 64 + odm_lowest_bit(word);
	}
	return -1;
}

static __always_inline struct odm_globs *odm_globs_of(u64 generation)
{
	u32 slot = 0;
	struct odm_globs *globs = odm_globs.lookup(&slot);

	if (globs && globs->generation != generation) {
		slot = 1;
		globs = odm_globs.lookup(&slot);
	}
	return globs && globs->generation == generation ? globs : NULL;
}

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Blocks of addresses in which nothing is typed. Most packets of most hosts are from and to such; that costs
 * them a load, where the type of an address costs a hash lookup.
 */
#ifndef ODM_BLOCK_H
#define ODM_BLOCK_H

/* The number of an address's block: that of 16 IPv4 addresses, of an IPv6 /64. Some blocks share a number. */
static __always_inline u32 odm_block(const struct odm_addr *addr)
{
	u32 block = odm_is_v4(addr) ? bpf_ntohl(addr->w[3]) >> ODM_BLOCK_SHIFT4
				    : bpf_ntohl(addr->w[0]) ^ bpf_ntohl(addr->w[1]);

	return block * ODM_BLOCK_FACTOR >> (32 - ODM_BLOCK_BITS);
}

/* Is an address surely untyped, or shared? false: it may be anything. */
static __always_inline bool odm_is_in_untyped_block(const struct odm_addr *addr)
{
	u32 block = odm_block(addr), word = block / 64;
	u64 *untyped = odm_untyped_blocks.lookup(&word);

	return untyped && *untyped >> block % 64 & 1;
}

#endif

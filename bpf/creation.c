/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The creation of packet and XDP sockets, for which no cgroup hook runs, then or when they send. Where
 * the kernel lets its security modules decide, those of classes that closed them are refused. This
 * runs for every socket of the host. Left out where the kernel doesn't run it; frames.c and options.c
 * stand behind it in any case, for sockets that are older than the closing.
 */
#ifdef ODM_WITH_CREATION

/*
 * The caller's network namespace, in which its socket will be. No helper tells it here. What is read
 * is where the loader found it in the running kernel's own description of its types.
 */
static __always_inline u64 odm_netns_of_caller(void)
{
	void *task = bpf_get_current_task_btf();
	void *nsproxy = *(void **)(task + ODM_TASK_NSPROXY);
	void *net = nsproxy ? *(void **)(nsproxy + ODM_NSPROXY_NET) : NULL;

	return net ? *(u64 *)(net + ODM_NET_COOKIE) : 0;
}

/* The kind, as a class may close it; 0: later hooks see it. */
static __always_inline u8 odm_kind_of_family(int family)
{
	if (family == AF_PACKET)
		return ODM_REFUSE_PACKET;
	return family == AF_XDP ? ODM_REFUSE_XDP : 0;
}

/* 0 goes on. All but packet and XDP sockets cost a comparison or two. */
static __always_inline int odm_create(int family, bool for_kernel)
{
	struct odm_decision d = ODM_DECIDE(ODM_REFUSE, ODM_R_CLOSED, 0);
	u8 kind = odm_kind_of_family(family);
	struct odm_settings *settings;
	struct odm_cgroup cgroup;
	struct odm_class *class;

	if (!kind || for_kernel)
		return 0; /* another kind, or the kernel itself: as without us */
	settings = odm_settings_get();
	if (!settings || !settings->watched_classes ||
	    odm_netns_of_caller() != settings->home_netns)
		return 0; /* nothing is closed, or it is another namespace */
	cgroup = odm_class_of_caller(settings);
	class = odm_class_row(cgroup.class_id);
	if (!class || class->mode == ODM_MODE_OFF || !(class->refuse & kind))
		return 0; /* open to this class */
	d = odm_soften(d, class->mode);
	odm_count(cgroup.class_id, d, ODM_H_SOCK_CREATE);
	return d.verdict == ODM_REFUSE ? -EACCES : 0;
}

/* Called as (family, type, protocol, for the kernel), at either of the places that the loader knows. */
int odm_creation(u64 *arguments)
{
	return odm_create(arguments[0], arguments[3]);
}

#endif

"""What the typed prefix table means for kernel and maps, and the ordered way there.

Level-triggered: `desired` looks at the host as it is now, and rows appear only for what is there.
So one plan may not reach the goal (an address first has to become ready): read, plan and apply
until the plan is empty. A plan may be cut short after any action without harm:

- no choice or prefix row names an address that the kernel did not hold, ready, when it was read;
- no address of ours exists without a typing of it and of its network, nor (unless its prefix is
  handed on) without the rule that refuses what others send from there.

What `together` counts may be carried out at once; after actions that failed, go on with what
`still_safe` leaves of the plan.
"""

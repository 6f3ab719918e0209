"""What must outlive a reboot: secret, numbers of names, addresses, the sysctls that we changed.

`opening` finds the file whole, `schema` brings its tables to this version, `database` reads and
writes; each other module has the tables of one subject.
"""

from odm_agent.journal.addresses import Addresses
from odm_agent.journal.cgroups import CgroupNote, Cgroups
from odm_agent.journal.database import Owner
from odm_agent.journal.errors import JournalError
from odm_agent.journal.handovers import Handovers
from odm_agent.journal.numbering import Numbers
from odm_agent.journal.sysctls import Sysctls
from odm_agent.journal.usage import Counted, Usage

__all__ = ["CgroupNote", "Counted", "Journal", "JournalError", "Owner"]


class Journal(Numbers, Cgroups, Addresses, Usage, Handovers, Sysctls):
    """The state database. One process writes it, one thread at a time; close it when done."""

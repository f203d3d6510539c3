"""Reports on trained networks: what is reported, the claims on it, and one self-contained HTML page.

from ufm.reports import read_run, report
report([read_run("runs/mine")], "made by hand").write("report.html")
"""

from ufm.reports.page import Report, report
from ufm.runs.claims import Claim, Verdict
from ufm.runs.compared import read_run
from ufm.runs.exact_claims import exact_claims
from ufm.runs.network_claims import network_claims
from ufm.runs.record import RunRecord as Run, structure_record as demo_run

__all__ = ["Claim", "Report", "Run", "Verdict", "demo_run", "exact_claims", "network_claims", "read_run", "report"]

"""`report.html`: a page to look through a job's results with, and its data in `report/`.

The page holds what can be counted ahead (the index); what is known of each image lies beside it, in scripts of some
thousand images each, which the page loads when it needs them: a page opened from a disk may load scripts, and nothing
else. `page/` holds what the page is made of, put together into one file.
"""

from trtjob.jobs.report.report import Report

__all__ = ["Report"]

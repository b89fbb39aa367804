"""Images put into folders by what was found on them, and back."""

from trtjob.jobs.sorting.plan import By
from trtjob.jobs.sorting.sort import How, SortedImages, sort_images
from trtjob.jobs.sorting.undo import undo_sort

__all__ = ["By", "How", "SortedImages", "sort_images", "undo_sort"]

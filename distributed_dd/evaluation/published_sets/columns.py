"""Names of the columns of a set on the hub, and of what is told beside them."""

IMAGE, LABEL, SOFT, VALUES = "image", "label", "soft_label", "values"
TOP_CLASSES, TOP_PROBABILITIES = "top_k_classes", "top_k_probabilities"
OWN = b"distributed_dd"
"""Key of a parquet file's metadata under which an export says what its numbers are."""
FACTS, OFFSETS = "facts", "image_offsets"

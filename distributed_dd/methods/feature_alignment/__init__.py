"""Feature alignment: CAFE (Wang et al., CVPR 2022)."""

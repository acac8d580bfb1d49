"""Files and trees."""

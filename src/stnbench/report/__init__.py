"""What a sweep found, from the store to tables that people read. ``output`` is the way in."""

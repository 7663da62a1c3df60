"""A million images: detection by actors of Ray, results in Parquet, exactly once, resumable.

listing (frozen) -> readers: decode, tiles -> actors: network, NMS -> driver: merge, shards of work units
"""

"""A task's image: from its address to upright pixels, through a guarded fetch and a cache on disk.

resolver.py       an image reference -> pixels and their hash
task_image.py     a task -> its image reference
guarded_http.py   fetches only from where a worker may
decoding.py       bytes -> upright pixels, with limits
disk_cache.py     bytes kept on disk, bounded
"""

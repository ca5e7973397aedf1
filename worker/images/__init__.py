"""A task's image: from its address to upright pixels, through a guarded fetch and a cache on disk.

resolver.py     an image reference -> pixels and their hash, with both caches
downloader.py   an image reference -> its URL and the bytes behind it
image_urls.py   URLs from task data: checks, and how an image is called in an error text
decoding.py     bytes -> upright pixels, with limits
disk_cache.py   bytes kept on disk, with a limit
"""

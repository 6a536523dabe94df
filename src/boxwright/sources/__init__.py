"""Sources of images: folders, globs, lists, archives and storage services, as images with names."""

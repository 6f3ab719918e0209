"""Getting programs and maps into the kernel, finding them again, replacing and removing them."""

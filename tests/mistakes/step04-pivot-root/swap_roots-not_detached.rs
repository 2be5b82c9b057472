// The old root lies on top of the new one, with all its mounts.
    call!(chdir(new_root))?;
    call!(pivot_root(".", "."))?;
    mounts()

// The mounts below the source aren't copied.
    fn open_tree(source: &Path) -> nix::Result<OwnedFd> {
        open_tree_at(AT_FDCWD, source, 0)
    }
    let tree = call!(open_tree(source))?;
    call!(mount_setattr(&tree, attributes))?;
    Ok(tree)

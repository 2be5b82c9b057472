// More than was asked for.
    let tree = call!(open_tree(source))?;
    let safer = &MountAttributes {
        set: attributes.set | libc::MOUNT_ATTR_NOSUID,
        ..*attributes
    };
    call!(mount_setattr(&tree, safer))?;
    Ok(tree)

// Only the topmost mount gets the attributes.
    let tree = call!(open_tree(source))?;
    let only = &MountAttributes { topmost: true, ..*attributes };
    call!(mount_setattr(&tree, only))?;
    Ok(tree)

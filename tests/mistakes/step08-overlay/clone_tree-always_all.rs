// topmost isn't heeded.
    let tree = call!(open_tree(source))?;
    let all = &MountAttributes { topmost: false, ..*attributes };
    call!(mount_setattr(&tree, all))?;
    Ok(tree)

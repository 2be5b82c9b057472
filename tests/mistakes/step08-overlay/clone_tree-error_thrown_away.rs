// Nobody is told that the volume can be written.
    let tree = call!(open_tree(source))?;
    let _ = call!(mount_setattr(&tree, attributes));
    Ok(tree)

// A group that can't be joined is passed over: nothing limits the container.
        for group in &self.groups {
            let _ = (&*group.members).write_all(b"0");
        }
        call!(unshare(CloneFlags::CLONE_NEWCGROUP))?;
        Ok(())

// Names are compared as they are written.
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=', '"']);
        let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
        let given = behind.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (given, challenges.last_mut()) {
            _ if rest.is_empty() => return challenges,
            (Some(given), Some(challenge)) if !word.is_empty() => {
                let (value, behind) = value(given);
                challenge.parameters.push((word.into(), value));
                rest = behind;
            }
            (None, _) if !word.is_empty() => {
                challenges.push(Challenge {
                    scheme: word.into(),
                    parameters: Vec::new(),
                });
                rest = behind;
            }
            _ => rest = behind.get(1..).unwrap_or_default(),
        }
    }

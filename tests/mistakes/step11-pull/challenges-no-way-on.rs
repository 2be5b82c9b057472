// What is no word is never taken away: the loop has no end.
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim();
    while !rest.is_empty() {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=', '"']).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let given = behind.trim_start_matches([' ', '\t']).strip_prefix('=');
        match (given, challenges.last_mut()) {
            (Some(given), Some(challenge)) if !word.is_empty() => {
                let (value, behind) = value(given);
                challenge.parameters.push((word.to_lowercase(), value));
                rest = behind;
            }
            _ if word.is_empty() => rest = behind,
            _ => {
                challenges.push(Challenge {
                    scheme: word.to_lowercase(),
                    parameters: Vec::new(),
                });
                rest = behind;
            }
        }
    }
    challenges

// There may be more than one challenge, and the first may be none that we can meet.
    let (scheme, mut rest) = header.split_once(' ').unwrap_or((header, ""));
    let mut parameters = Vec::new();
    while let Some((name, behind)) = rest.split_once('=') {
        let (value, behind) = value(behind);
        let name = name.trim_matches([' ', '\t', ',']);
        parameters.push((name.to_lowercase(), value));
        rest = behind;
    }
    vec![Challenge {
        scheme: scheme.to_lowercase(),
        parameters,
    }]

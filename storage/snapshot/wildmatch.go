package snapshot

import "strings"

// wildcard matching as git does it: bytes, not characters; "*" and "?" stop at a
// slash when the pattern is one of paths; "**" between slashes does not.
type wildmatch struct {
	pattern string
	paths   bool // "/" is special
	fold    bool // ASCII letters match in either case
	steps   int  // left
}

// maxWildSteps bounds the work on one name. Patterns come with the trees that
// are backed up, so somebody may have made one to stall a backup; what cannot
// be decided does not match.
const maxWildSteps = 1 << 18

// wildResult is the answer of one attempt.
type wildResult int

const (
	wildMatch wildResult = iota
	wildNo
	wildAbort         // no later start in the text can match either
	wildAbortStarStar // likewise, up to the innermost "**"
)

func matchWild(pattern, text string, paths, fold bool) bool {
	w := &wildmatch{pattern: pattern, paths: paths, fold: fold, steps: maxWildSteps}
	return w.match(0, text) == wildMatch
}

// at returns a byte of the pattern, 0 behind its end.
func (w *wildmatch) at(i int) byte {
	if i < len(w.pattern) {
		return w.pattern[i]
	}
	return 0
}

func first(s string) byte {
	if s == "" {
		return 0
	}
	return s[0]
}

func (w *wildmatch) lower(c byte) byte {
	if w.fold {
		return lowerASCII(c)
	}
	return c
}

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// special reports whether a byte of a pattern stands for more than itself.
func special(c byte) bool { return c == '*' || c == '?' || c == '[' || c == '\\' }

// match matches the pattern from p on with text.
func (w *wildmatch) match(p int, text string) wildResult {
	for ; p < len(w.pattern); p++ {
		if w.steps--; w.steps < 0 {
			return wildAbort
		}
		c := w.at(p)
		if text == "" && c != '*' {
			return wildAbort
		}
		t := w.lower(first(text))
		switch c {
		case '?':
			if w.paths && t == '/' {
				return wildNo
			}
		case '*':
			return w.star(p, text)
		case '[':
			end, matched, ok := w.set(p+1, t)
			if !ok {
				return wildAbort
			}
			if !matched || w.paths && t == '/' {
				return wildNo
			}
			p = end
		case '\\':
			p++
			if t != w.at(p) || p >= len(w.pattern) {
				return wildNo
			}
		default:
			if t != w.lower(c) {
				return wildNo
			}
		}
		text = text[1:]
	}
	if text != "" {
		return wildNo
	}
	return wildMatch
}

// star matches from a "*" or "**" on.
func (w *wildmatch) star(p int, text string) wildResult {
	slashes := !w.paths // whether the stars may match them
	start := p
	for p++; w.at(p) == '*'; p++ {
	}
	if p-start > 1 && w.paths && (start == 0 || w.at(start-1) == '/') &&
		(p >= len(w.pattern) || w.at(p) == '/' || w.at(p) == '\\' && w.at(p+1) == '/') {
		if w.at(p) == '/' && w.match(p+1, text) == wildMatch {
			return wildMatch // "**/" is nothing
		}
		slashes = true
	}
	if p >= len(w.pattern) {
		if !slashes && strings.Contains(text, "/") {
			return wildNo
		}
		return wildMatch
	}
	if !slashes && w.at(p) == '/' { // "*" is exactly what stands before the slash
		slash := strings.IndexByte(text, '/')
		if slash < 0 {
			return wildNo
		}
		return w.match(p+1, text[slash+1:])
	}
	return w.starThen(p, text, slashes)
}

// starThen tries every end of what a star matches.
func (w *wildmatch) starThen(p int, text string, slashes bool) wildResult {
	for text != "" {
		if literal := w.at(p); !special(literal) {
			for text != "" && w.lower(first(text)) != w.lower(literal) && (slashes || text[0] != '/') {
				text = text[1:]
			}
			if w.lower(first(text)) != w.lower(literal) {
				return wildNo
			}
		}
		switch result := w.match(p, text); {
		case result != wildNo:
			if !slashes || result != wildAbortStarStar {
				return result
			}
		case !slashes && text[0] == '/':
			return wildAbortStarStar
		}
		text = text[1:]
	}
	return wildAbort
}

// set matches a byte with the set whose first byte is at p, and returns where
// its closing bracket is; ok is false when it has none.
func (w *wildmatch) set(p int, t byte) (end int, matched, ok bool) {
	negated := w.at(p) == '!' || w.at(p) == '^'
	if negated {
		p++
	}
	var before byte // 0 after what begins no range
	for opening := true; opening || w.at(p) != ']'; opening = false {
		c := w.at(p)
		switch {
		case p >= len(w.pattern):
			return 0, false, false
		case c == '\\':
			p++
			if c = w.at(p); p >= len(w.pattern) {
				return 0, false, false
			}
			matched = matched || t == c
			before = c
		case c == '-' && before != 0 && p+1 < len(w.pattern) && w.at(p+1) != ']':
			p++
			if w.at(p) == '\\' {
				p++
			}
			if p >= len(w.pattern) {
				return 0, false, false
			}
			matched = matched || w.between(before, t, w.at(p))
			before = 0
		case c == '[' && w.at(p+1) == ':':
			close := strings.IndexByte(w.pattern[p+2:], ']')
			if close < 0 {
				return 0, false, false
			}
			if name := w.pattern[p+2 : p+2+close]; strings.HasSuffix(name, ":") {
				in, known := w.class(name[:len(name)-1], t)
				if !known {
					return 0, false, false
				}
				matched, before = matched || in, 0
				p += 2 + close
				break
			}
			matched, before = matched || t == '[', '['
		default:
			matched, before = matched || t == c, c
		}
		p++
	}
	return p, matched != negated, true
}

func (w *wildmatch) between(low, t, high byte) bool {
	if low <= t && t <= high {
		return true
	}
	if !w.fold || t < 'a' || t > 'z' {
		return false
	}
	upper := t - 'a' + 'A'
	return low <= upper && upper <= high
}

// class reports whether a byte is of a named class.
func (w *wildmatch) class(name string, c byte) (in, known bool) {
	lower, upper, digit := 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9'
	graphic := '!' <= c && c <= '~'
	switch name {
	case "alnum":
		return lower || upper || digit, true
	case "alpha":
		return lower || upper, true
	case "blank":
		return c == ' ' || c == '\t', true
	case "cntrl":
		return c < ' ' || c == 0x7f, true
	case "digit":
		return digit, true
	case "graph":
		return graphic, true
	case "lower":
		return lower, true
	case "print":
		return graphic || c == ' ', true
	case "punct":
		return graphic && !lower && !upper && !digit, true
	case "space":
		return c == ' ' || '\t' <= c && c <= '\r', true
	case "upper":
		return upper || w.fold && lower, true
	case "xdigit":
		return digit || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F', true
	}
	return false, false
}

package batch

// Marked reports whether t contains a replacement string.
func (t *Template) Marked() bool { return t.marked }

package node

import (
	"fmt"
	"strings"
)

// ParseOwnerLimit reads one entry of store.owners: NAME_OR_ID=SIZE.
func ParseOwnerLimit(text string) (owner string, limit Size, err error) {
	owner, size, ok := cutLast(text, "=")
	if owner = strings.TrimSpace(owner); !ok || owner == "" {
		return "", 0, fmt.Errorf("%q is not NAME_OR_ID=SIZE, such as nas=500GB", text)
	}
	err = limit.UnmarshalText([]byte(strings.TrimSpace(size)))
	return owner, limit, err
}

// cutLast cuts around the last sep: names may hold anything.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

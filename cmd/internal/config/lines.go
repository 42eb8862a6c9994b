package config

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// lines says on which line of a file each key is, as far as the file is written
// one key a line.
type lines map[string]int

var keyLine = regexp.MustCompile(`^( *)([A-Za-z0-9_-]+) *:( |$)`)

// linesOf finds the keys in a file that is valid YAML.
func linesOf(text []byte) lines {
	type parent struct {
		indent int
		key    string
	}
	out, above := lines{}, []parent{}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		found := keyLine.FindSubmatch(bytes.TrimRight(line, "\r\n"))
		if found == nil {
			continue
		}
		indent := len(found[1])
		for len(above) > 0 && above[len(above)-1].indent >= indent {
			above = above[:len(above)-1]
		}
		key := strings.ToLower(string(found[2]))
		if len(above) > 0 {
			key = above[len(above)-1].key + "." + key
		}
		out[key] = number
		above = append(above, parent{indent, key})
	}
	return out
}

// without is l without the keys that an environment variable or a flag overrides.
func (l lines) without(overridden ...map[string]string) lines {
	out := maps.Clone(l)
	for _, keys := range overridden {
		for key := range keys {
			delete(out, key)
		}
	}
	return out
}

var namedKey = regexp.MustCompile(`^([A-Za-z0-9_. -]+): |'([a-z0-9_.]+)'|"([^" ]+)"`)

// locate puts the line of the key that an error, or each of several, is about in
// front of it.
func (l lines) locate(err error) error {
	if several, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, one := range several.Unwrap() {
			out = append(out, l.locate(one))
		}
		return errors.Join(out...)
	}
	for _, found := range namedKey.FindAllStringSubmatch(err.Error(), -1) {
		for _, key := range found[1:] {
			for key = strings.ToLower(key); key != ""; key = parentOf(key) {
				if line, known := l[key]; known {
					return fmt.Errorf("line %d: %w", line, err)
				}
			}
		}
	}
	return err
}

// parentOf returns a key without its last part; empty when it has only one.
func parentOf(key string) string { return key[:max(0, strings.LastIndexByte(key, '.'))] }

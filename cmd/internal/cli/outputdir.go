package cli

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	controlv1 "gotong/proto/control/v1"
)

// itemNameMax cuts the directory name of an item.
const itemNameMax = 100

// outputDir receives the files that tasks wrote to /out. A name that comes
// from a guest cannot reach outside the directory: everything goes through
// os.Root.
type outputDir struct {
	root  *os.Root
	names []string // directory of each item; nil without items
	file  *os.File // being received
}

func openOutputDir(dir string, items [][]byte, hasItems bool) (*outputDir, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	o := &outputDir{root: root}
	if hasItems {
		o.names = itemNames(items)
	}
	return o, nil
}

func (o *outputDir) close() {
	if o.file != nil {
		o.file.Close()
	}
	o.root.Close()
}

// write handles one piece; the pieces of a file follow each other.
func (o *outputDir) write(piece *controlv1.RunOutput) error {
	name, err := o.place(piece)
	if err != nil {
		return err
	}
	if piece.Dir {
		return o.root.MkdirAll(name, 0o755)
	}
	if piece.First {
		if err := o.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if o.file, err = o.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644); err != nil {
			return err
		}
	}
	if o.file == nil {
		return fmt.Errorf("output %s: a piece without a beginning", printable(piece.Path))
	}
	if _, err := o.file.Write(piece.Data); err != nil {
		return err
	}
	if piece.Last {
		err = o.file.Close()
		o.file = nil
	}
	return err
}

func (o *outputDir) place(piece *controlv1.RunOutput) (string, error) {
	relative := path.Clean("/" + piece.Path)[1:]
	if o.names == nil {
		return filepath.FromSlash(relative), nil
	}
	if piece.Index >= uint64(len(o.names)) {
		return "", fmt.Errorf("output of task %d, but there are %d items", piece.Index, len(o.names))
	}
	return filepath.Join(o.names[piece.Index], filepath.FromSlash(relative)), nil
}

// itemNames returns a directory name for each item: bytes outside
// [A-Za-z0-9._-] and a leading dot are written as %XX, the name is cut at
// itemNameMax bytes, and a name that was taken already gets ~INDEX.
func itemNames(items [][]byte) []string {
	names := make([]string, len(items))
	taken := make(map[string]bool, len(items))
	for i, item := range items {
		name := itemName(item)
		if name == "" || taken[name] {
			name = fmt.Sprintf("%s~%d", name, i)
		}
		taken[name] = true
		names[i] = name
	}
	return names
}

func itemName(item []byte) string {
	var b strings.Builder
	for i, c := range item {
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' && i > 0
		if plain {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
		if b.Len() >= itemNameMax {
			return b.String()[:itemNameMax]
		}
	}
	return b.String()
}

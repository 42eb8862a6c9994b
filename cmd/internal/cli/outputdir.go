package cli

import (
	"fmt"
	"hash/maphash"
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
	items bool              // each item has a directory of its own
	first map[uint64]uint64 // by hash of the name of such a directory: the task that has it, from 1
	seed  maphash.Seed
	item  string   // directory of the task whose files come
	file  *os.File // being received
}

func openOutputDir(dir string, items bool) (*outputDir, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &outputDir{root: root, items: items, first: map[uint64]uint64{}, seed: maphash.MakeSeed()}, nil
}

// expect takes note of every task, also of one that does not run again, in their
// order: so each has the same directory whichever ends first, and in a run that is
// resumed.
func (o *outputDir) expect(task runItem) {
	hash := maphash.String(o.seed, itemName([]byte(strings.Join(task.values, " "))))
	if _, taken := o.first[hash]; !taken {
		o.first[hash] = task.seq
	}
}

// begin says whose files come next: bytes of the item outside [A-Za-z0-9._-] and
// a leading dot are written as %XX, the name is cut at itemNameMax bytes, and one
// that a task before it has gets ~INDEX.
func (o *outputDir) begin(t *controlv1.RunTask) {
	if !o.items {
		return
	}
	o.item = itemName(t.Item)
	if o.item == "" || o.first[maphash.String(o.seed, o.item)] != t.Index+1 {
		o.item = fmt.Sprintf("%s~%d", o.item, t.Index)
	}
}

func (o *outputDir) close() {
	if o.file != nil {
		o.file.Close()
	}
	o.root.Close()
}

// write handles one piece; the pieces of a file follow each other.
func (o *outputDir) write(piece *controlv1.RunOutput) error {
	name := filepath.Join(o.item, filepath.FromSlash(path.Clean("/" + piece.Path)[1:]))
	var err error
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

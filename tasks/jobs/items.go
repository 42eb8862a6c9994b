package jobs

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"

	"google.golang.org/protobuf/proto"

	"gotong/grid/blake3"
	tasksv1 "gotong/proto/tasks/v1"
	"gotong/tasks"
	"gotong/tasks/scheduler"
)

// A list of items is one content, however many they are, from which any item
// can be read without the others:
//
//	magic (16 bytes)
//	items, each: varint length ‖ Item message
//	index: for every 64th item, 8 bytes where it begins
//	8 bytes number of items ‖ 8 bytes where the index begins
//
// Integers are big-endian.
const (
	itemsMagic   = "gotong items 1\n\x00"
	itemsTrailer = 16
	indexEvery   = 64
	// MaxItemBytes bounds one encoded item.
	MaxItemBytes = 512 << 10
)

// Item is one line of a list: what distinguishes a task from the others of its
// step.
type Item struct {
	Words     []string // the columns, of which templates speak
	Inputs    []tasks.Input
	Stdin     tasks.ContentID
	StdinSize int64
	Stored    map[tasks.ContentID]tasks.Stored
	// Inline are contents of the item that are small: they ride in the list, so
	// that many small files are one content.
	Inline [][]byte
}

// Bounds of Item.Inline.
const (
	MaxInlineFile = 64 << 10  // one content
	MaxInlineItem = 256 << 10 // of one item
)

// ItemsWriter writes a list of items. Close writes its end.
type ItemsWriter struct {
	w     io.Writer
	at    int64
	count int
	index []byte
	err   error
}

// NewItemsWriter begins a list. The caller closes w after Close.
func NewItemsWriter(w io.Writer) *ItemsWriter {
	i := &ItemsWriter{w: w}
	i.write([]byte(itemsMagic))
	return i
}

// Add appends an item.
func (w *ItemsWriter) Add(item Item) error {
	if w.count >= scheduler.MaxTasks {
		return invalid("more than %d items", scheduler.MaxTasks)
	}
	m := &tasksv1.Item{Words: bytesOf(item.Words), Inputs: inputsToProto(item.Inputs), StdinSize: item.StdinSize, Stored: storedToProto(item.Stored), Inline: item.Inline}
	if !item.Stdin.IsZero() {
		m.Stdin = item.Stdin[:]
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return err
	}
	if len(raw) > MaxItemBytes {
		return invalid("item %d has %d bytes, at most %d", w.count+1, len(raw), MaxItemBytes)
	}
	if w.count%indexEvery == 0 {
		w.index = binary.BigEndian.AppendUint64(w.index, uint64(w.at))
	}
	w.count++
	w.write(append(binary.AppendUvarint(make([]byte, 0, len(raw)+4), uint64(len(raw))), raw...))
	return w.err
}

// Count returns how many items were added.
func (w *ItemsWriter) Count() int { return w.count }

// Close writes the end of the list.
func (w *ItemsWriter) Close() error {
	start := w.at
	end := binary.BigEndian.AppendUint64(w.index, uint64(w.count))
	w.write(binary.BigEndian.AppendUint64(end, uint64(start)))
	return w.err
}

func (w *ItemsWriter) write(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(b)
	w.at += int64(n)
	w.err = err
}

// ItemsReader reads items of a list, whose bytes were verified by their hash:
// it bounds what it reads all the same. It is safe for concurrent use.
type ItemsReader struct {
	r     io.ReaderAt
	count int
	end   int64 // of the items
}

// OpenItems begins to read a list of size bytes that should have count items.
func OpenItems(r io.ReaderAt, size int64, count int) (*ItemsReader, error) {
	var magic [len(itemsMagic)]byte
	var trailer [itemsTrailer]byte
	if size < int64(len(magic)+len(trailer)) {
		return nil, invalid("list of items of %d bytes", size)
	}
	if _, err := r.ReadAt(magic[:], 0); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(io.NewSectionReader(r, size-itemsTrailer, itemsTrailer), trailer[:]); err != nil {
		return nil, err
	}
	n, start := binary.BigEndian.Uint64(trailer[:]), binary.BigEndian.Uint64(trailer[8:])
	index := (n + indexEvery - 1) / indexEvery * 8
	if string(magic[:]) != itemsMagic || n != uint64(count) || n > scheduler.MaxTasks ||
		start < uint64(len(magic)) || start > uint64(size) || start+index+itemsTrailer != uint64(size) {
		return nil, invalid("not a list of %d items", count)
	}
	return &ItemsReader{r: r, count: count, end: int64(start)}, nil
}

// Item returns one item.
func (r *ItemsReader) Item(i int) (Item, error) {
	if i < 0 || i >= r.count {
		return Item{}, invalid("item %d of %d", i, r.count)
	}
	var entry [8]byte
	if _, err := io.ReadFull(io.NewSectionReader(r.r, r.end+int64(i/indexEvery)*8, 8), entry[:]); err != nil {
		return Item{}, err
	}
	at := binary.BigEndian.Uint64(entry[:])
	if at < uint64(len(itemsMagic)) || at >= uint64(r.end) {
		return Item{}, invalid("bad index of a list of items")
	}
	from := bufio.NewReader(io.NewSectionReader(r.r, int64(at), r.end-int64(at)))
	for skip := i % indexEvery; ; skip-- {
		n, err := binary.ReadUvarint(from)
		if err != nil || n > MaxItemBytes {
			return Item{}, invalid("item %d cannot be read", i)
		}
		if skip > 0 {
			if _, err := from.Discard(int(n)); err != nil {
				return Item{}, invalid("item %d cannot be read", i)
			}
			continue
		}
		raw := make([]byte, n)
		if _, err := io.ReadFull(from, raw); err != nil {
			return Item{}, invalid("item %d cannot be read", i)
		}
		return parseItem(raw)
	}
}

func parseItem(raw []byte) (item Item, err error) {
	var m tasksv1.Item
	if err := proto.Unmarshal(raw, &m); err != nil {
		return item, invalid("item does not parse")
	}
	item = Item{Words: stringsOf(m.Words), StdinSize: m.StdinSize, Inline: m.Inline}
	if item.Inputs, err = inputsFromProto(m.Inputs); err != nil {
		return item, err
	}
	if len(m.Stdin) > 0 && !fixed(item.Stdin[:], m.Stdin) || m.StdinSize < 0 {
		return item, invalid("bad standard input of an item")
	}
	item.Stored, err = storedFromProto(m.Stored)
	return item, err
}

// WriteItems writes a list into a new file and returns what a plan says of it; a
// small one rides in the plan, and the file is removed. fill adds the items.
func WriteItems(path string, fill func(add func(Item) error) error) (Items, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return Items{}, err
	}
	hash := blake3.New()
	buffer := bufio.NewWriterSize(io.MultiWriter(f, hash), 1<<20)
	w := NewItemsWriter(buffer)
	if err := errors.Join(fill(w.Add), w.Close(), buffer.Flush(), f.Close()); err != nil {
		return Items{}, err
	}
	items := Items{Count: w.Count(), Size: w.at}
	hash.Sum(items.Content[:0])
	if items.Size > InlineItemsBytes {
		return items, nil
	}
	if items.Data, err = os.ReadFile(path); err != nil {
		return items, err
	}
	return items, os.Remove(path)
}

// Open opens a list; path is where it lies when it does not ride in the plan.
// The caller closes.
func (i Items) Open(path string) (*ItemsReader, io.Closer, error) {
	if len(i.Data) > 0 {
		r, err := inlineItems(i)
		return r, io.NopCloser(nil), err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	r, err := OpenItems(f, i.Size, i.Count)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return r, f, nil
}

// inlineItems returns a reader of a list that is in the plan.
func inlineItems(i Items) (*ItemsReader, error) {
	return OpenItems(bytes.NewReader(i.Data), i.Size, i.Count)
}

// Text is how an item is shown to people: its columns with blanks between.
func (i Item) Text() string { return strings.Join(i.Words, " ") }

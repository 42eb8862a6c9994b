package batch

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
)

// MaxEntryBytes bounds one entry of a List.
const MaxEntryBytes = 1 << 20

// indexEvery is how many entries of a list lie between two places whose offset
// is kept.
const indexEvery = 64

// ErrDamaged says that a list is not what AppendEntry wrote.
var ErrDamaged = errors.New("damaged list")

// AppendEntry appends an entry of a list: its length as a varint, then its bytes.
func AppendEntry(dst, entry []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(entry))), entry...)
}

// List reads entries by their number from what AppendEntry wrote, one after the
// other. It keeps the place of one entry in 64, so that a list of a million
// needs 125 KiB. It is safe for concurrent use, and fast when read in order.
type List struct {
	r       io.ReaderAt
	size    int64
	count   int
	offsets []int64 // of each indexEvery-th entry

	mu   sync.Mutex
	next int // the entry that reader would give
	from *bufio.Reader
}

// OpenList reads through size bytes of r once and checks that they are at most
// most entries. It does not close r.
func OpenList(r io.ReaderAt, size int64, most int) (*List, error) {
	l := &List{r: r, size: size}
	from := bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 64<<10)
	for offset := int64(0); offset < size; l.count++ {
		if l.count >= most {
			return nil, fmt.Errorf("%w: more than %d entries", ErrDamaged, most)
		}
		if l.count%indexEvery == 0 {
			l.offsets = append(l.offsets, offset)
		}
		n, err := entrySize(from)
		if err != nil {
			return nil, err
		}
		if _, err := from.Discard(n); err != nil {
			return nil, fmt.Errorf("%w: entry %d is cut off", ErrDamaged, l.count)
		}
		offset += int64(numberBytes(n) + n)
	}
	return l, nil
}

// entrySize takes the length of an entry off, which must be written as
// AppendEntry does.
func entrySize(from *bufio.Reader) (int, error) {
	head, err := from.Peek(binary.MaxVarintLen32)
	n, used := binary.Uvarint(head)
	if used <= 0 || n > MaxEntryBytes || used != numberBytes(int(n)) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, errors.Join(fmt.Errorf("%w: length of an entry", ErrDamaged), err)
	}
	_, err = from.Discard(used)
	return int(n), err
}

// numberBytes is the length of n as a varint.
func numberBytes(n int) int { return max(1, (bits.Len(uint(n))+6)/7) }

// Again returns another List of the same entries, for a second reader that goes
// through them in an order of its own.
func (l *List) Again() *List {
	return &List{r: l.r, size: l.size, count: l.count, offsets: l.offsets}
}

// Len returns the number of entries.
func (l *List) Len() int { return l.count }

// Entry returns an entry; the caller may keep it.
func (l *List) Entry(i int) ([]byte, error) {
	if i < 0 || i >= l.count {
		return nil, fmt.Errorf("entry %d of %d", i, l.count)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.from == nil || i < l.next || i >= l.next+indexEvery {
		place := i / indexEvery
		section := io.NewSectionReader(l.r, l.offsets[place], l.size-l.offsets[place])
		if l.from == nil {
			l.from = bufio.NewReaderSize(section, 16<<10)
		} else {
			l.from.Reset(section)
		}
		l.next = place * indexEvery
	}
	for {
		entry, err := l.read(l.next == i)
		if err != nil {
			l.from = nil
			return nil, err
		}
		if l.next++; l.next > i {
			return entry, nil
		}
	}
}

// read takes the next entry off, or only skips it.
func (l *List) read(want bool) ([]byte, error) {
	n, err := entrySize(l.from)
	if err != nil {
		return nil, err
	}
	if !want {
		_, err = l.from.Discard(n)
		return nil, err
	}
	entry := make([]byte, n)
	_, err = io.ReadFull(l.from, entry)
	return entry, err
}

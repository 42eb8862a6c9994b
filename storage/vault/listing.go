package vault

import (
	"bytes"
	"errors"
)

// listingBuffer is how much a Listing collects before it cuts.
const listingBuffer = 1 << 20

// Listing is an object that is written bit by bit while others are: the entries
// of one directory. It holds at most listingBuffer and one entry in memory.
type Listing struct {
	buf  []byte
	refs listBuilder // of what was cut off
}

// errEnough stops a cut before a piece whose end is not certain yet.
var errEnough = errors.New("enough")

// Append adds bytes to a listing by means of w, which may serve other listings
// in between.
func (w *Writer) Append(l *Listing, b []byte) error {
	l.buf = append(l.buf, b...)
	if len(l.buf) < listingBuffer {
		return nil
	}
	return w.cut(l, false)
}

// Finish stores the rest of the listing and returns its ref.
func (w *Writer) Finish(l *Listing) (Ref, error) {
	if err := w.cut(l, true); err != nil {
		return Ref{}, err
	}
	l.refs.blobID, l.refs.put = w.lists.blobID, w.lists.put
	return l.refs.finish()
}

// cut stores pieces of the buffer. Before the end it keeps the last ones, whose
// ends depend on what follows.
func (w *Writer) cut(l *Listing, final bool) error {
	l.refs.blobID, l.refs.put = w.lists.blobID, w.lists.put
	w.begin(packTree)
	at := 0
	piece := func(plain []byte) error {
		if !final && len(l.buf)-at < w.listing.sizes.max {
			return errEnough
		}
		h, err := w.blob(packTree, plain)
		if err != nil {
			return err
		}
		at += len(plain)
		return l.refs.add(0, h, uint64(len(plain)))
	}
	var err error
	if final && len(l.buf) > 0 && len(l.buf) <= w.listing.sizes.min {
		err = piece(l.buf)
	} else {
		err = w.listing.split(bytes.NewReader(l.buf), piece)
	}
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	l.buf = l.buf[:copy(l.buf, l.buf[at:])]
	return nil
}

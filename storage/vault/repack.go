package vault

import (
	"context"
	"fmt"

	"go.etcd.io/bbolt"

	"gotong/storage"
)

// repacker copies the blobs that are of use out of condemned segments into new
// ones. They are copied as they are sealed.
type repacker struct {
	v    *Vault
	ctx  context.Context
	walk *walk

	data   []byte // the segment that is read
	open   [packKinds]*copied
	stored []storedPack
	to     map[uint32]*numberSet // where what was of use in a segment went
}

// copied is a pack that fills with copies.
type copied struct {
	pack
	from numberSet
}

// copy copies from one segment. storage.ErrTooFewShards means that nothing was.
func (c *repacker) copy(number uint32) error {
	row, err := c.v.index.segment(number)
	if err != nil {
		return err
	}
	if c.data, err = c.v.get(c.ctx, row, c.data[:0]); err != nil {
		c.data = nil
		return err
	}
	entries, err := readTOC(c.v.secrets, c.data)
	if err != nil {
		return err
	}
	kind := packData
	if 2*c.walk.trees[number] > c.walk.bytes[number] {
		kind = packTree
	}
	c.to[number] = &numberSet{}
	var bytes uint64
	for _, e := range entries {
		if !c.walk.live.has(number, e.offset) {
			continue
		}
		bytes += uint64(e.sealed)
		if err := c.add(kind, number, e, c.data[e.offset:e.offset+e.sealed]); err != nil {
			return err
		}
	}
	if want := c.walk.bytes[number]; bytes != want {
		return fmt.Errorf("%w: %d bytes of %d are in it", storage.ErrCorrupt, bytes, want)
	}
	return nil
}

func (c *repacker) add(kind packKind, number uint32, e tocEntry, sealed []byte) error {
	if p := c.open[kind]; p != nil && !p.fits(len(sealed)) {
		if err := c.flush(kind); err != nil {
			return err
		}
	}
	if c.open[kind] == nil {
		c.open[kind] = &copied{pack: pack{buf: make([]byte, 0, storage.MaxSegmentBytes)}}
	}
	p := c.open[kind]
	copy(p.reserve(e), sealed)
	p.filling.Done()
	p.from.add(number)
	return nil
}

// flush stores a pack and gives it a number. The index keeps to where its blobs
// were until the head that names it is there.
func (c *repacker) flush(kind packKind) error {
	p := c.open[kind]
	if p == nil {
		return nil
	}
	c.open[kind] = nil
	data, tocOffset, tocBytes := p.finish(c.v.secrets)
	put, err := c.v.putter(c.ctx)(data)
	if err != nil {
		return err
	}
	row := put.row(len(data))
	row.tocOffset, row.tocBytes = uint32(tocOffset), uint32(tocBytes)
	packs := []storedPack{{row: row}}
	if err := c.v.index.addPacks(packs); err != nil {
		return err
	}
	packs[0].entries = p.entries
	c.stored = append(c.stored, packs[0])
	for from := range p.from.all() {
		c.to[from].add(packs[0].row.number)
	}
	return nil
}

func (c *repacker) finish() error {
	for kind := range packKinds {
		if err := c.flush(kind); err != nil {
			return err
		}
	}
	return nil
}

// moved makes the index find the blobs in their new places, unless a session
// has stored them again meanwhile.
func (c *repacker) moved(tx *bbolt.Tx) error {
	for _, p := range c.stored {
		if err := putBlobs(tx, p.row.number, p.entries); err != nil {
			return err
		}
		if err := flagSegment(tx, p.row.number, rowIndexed, 0); err != nil {
			return err
		}
	}
	return nil
}

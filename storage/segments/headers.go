package segments

import (
	"sync"

	"gotong/storage"
)

// maxHeaders bounds the headers remembered, of about a kilobyte each.
const maxHeaders = 1024

// headerCache remembers headers, so that a range read needs one round trip. The
// zero value is empty.
type headerCache struct {
	mu    sync.Mutex
	known map[storage.SegmentID]storage.SignedHeader
}

func (c *headerCache) get(id storage.SegmentID) (storage.SignedHeader, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	header, ok := c.known[id]
	return header, ok
}

func (c *headerCache) add(header storage.SignedHeader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[storage.SegmentID]storage.SignedHeader{}
	}
	if len(c.known) >= maxHeaders {
		for id := range c.known { // any one
			delete(c.known, id)
			break
		}
	}
	c.known[header.ID] = header
}

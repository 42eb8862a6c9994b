package vault

import (
	"errors"
	"fmt"
	"io"

	chunkers "github.com/PlakarKorp/go-cdc-chunkers"
	_ "github.com/PlakarKorp/go-cdc-chunkers/chunkers/fastcdc" // registers chunkAlgorithm

	"gotong/storage/seal"
)

// chunkAlgorithm cuts content. Measured on 256 MiB of random bytes: fastcdc cuts
// 1.5 GB/s and stores 1.4 MiB again for an insertion, jc 3 GB/s and 2.4 MiB;
// what goes over a home uplink weighs more. Another choice would not make old
// vaults unreadable, it would only find fewer duplicates in them.
const chunkAlgorithm = "fastcdc-v1.0.0"

// chunkSizes are the bounds of content-defined pieces, in bytes.
type chunkSizes struct{ min, normal, max int }

var (
	contentChunks = chunkSizes{256 << 10, 1 << 20, maxBlobBytes}
	// Listings change in few places: small pieces send less again.
	listingChunks = chunkSizes{32 << 10, 128 << 10, 512 << 10}
)

// cutter finds the ends of pieces in one stream after the other. Its buffer is
// allocated at first use and kept.
type cutter struct {
	sizes   chunkSizes
	key     []byte
	chunker *chunkers.Chunker
}

func newCutter(sizes chunkSizes, secrets seal.VaultSecrets) *cutter {
	return &cutter{sizes: sizes, key: secrets.ChunkerKey()}
}

// split calls fn with each piece of r. A piece is valid during the call only.
func (c *cutter) split(r io.Reader, fn func(piece []byte) error) error {
	if c.chunker == nil {
		chunker, err := chunkers.NewChunker(chunkAlgorithm, r, &chunkers.ChunkerOpts{
			MinSize: c.sizes.min, NormalSize: c.sizes.normal, MaxSize: c.sizes.max, Key: c.key,
		})
		if err != nil {
			return fmt.Errorf("chunker: %w", err)
		}
		c.chunker = chunker
	} else {
		c.chunker.Reset(r)
	}
	for {
		piece, err := c.chunker.Next()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(piece) > 0 {
			if err := fn(piece); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

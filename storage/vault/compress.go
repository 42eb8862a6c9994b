package vault

import (
	"fmt"

	"github.com/klauspost/compress/zstd"

	"gotong/storage"
)

// What decides whether a piece is compressed.
const (
	compressMin   = 64        // shorter pieces are stored as they are
	sampleFrom    = 128 << 10 // longer pieces are tried by a sample first
	samplePieces  = 4
	sampleBytes   = 4 << 10                // of each sample piece
	worthFraction = 32                     // compression must save 1/32 of the bytes
	zstdWindow    = 1 << 20                // more costs memory for each encoder and gains little
	decodeMemory  = 2*maxBlobBytes + 1<<20 // of the decoder; pieces are at most maxBlobBytes
)

// compressor belongs to one writer: EncodeAll keeps its tables warm.
type compressor struct {
	encoder *zstd.Encoder
	scratch []byte
	sample  []byte
}

func newCompressor() (*compressor, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(zstdWindow), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &compressor{encoder: encoder}, nil
}

// pack returns the bytes to seal for plain and how they are encoded: zstd when
// that saves enough, else plain itself. The result is valid until the next call.
func (c *compressor) pack(plain []byte) (data []byte, coding uint8) {
	if len(plain) < compressMin || len(plain) > sampleFrom && !c.sampleShrinks(plain) {
		return plain, encodingRaw
	}
	c.scratch = c.encoder.EncodeAll(plain, c.scratch[:0])
	if !worth(len(c.scratch), len(plain)) {
		return plain, encodingRaw
	}
	return c.scratch, encodingZstd
}

func worth(compressed, plain int) bool { return compressed < plain-plain/worthFraction }

// sampleShrinks compresses a few places of a long piece: media and archives
// are recognised for a hundredth of the cost.
func (c *compressor) sampleShrinks(plain []byte) bool {
	c.sample = c.sample[:0]
	for i := range samplePieces {
		at := (len(plain) - sampleBytes) / (samplePieces - 1) * i
		c.sample = append(c.sample, plain[at:at+sampleBytes]...)
	}
	c.scratch = c.encoder.EncodeAll(c.sample, c.scratch[:0])
	return worth(len(c.scratch), len(c.sample))
}

func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(decodeMemory),
		zstd.WithDecodeAllCapLimit(true))
}

// unpack appends the plain bytes of a blob to dst. The error is
// storage.ErrCorrupt: data is authentic by now, so it was made wrong.
func unpack(decoder *zstd.Decoder, dst, data []byte, coding uint8, plainBytes int) ([]byte, error) {
	if coding == encodingRaw {
		return append(dst, data...), nil
	}
	start := len(dst)
	if cap(dst)-start < plainBytes {
		dst = append(make([]byte, 0, start+plainBytes), dst...)
	}
	out, err := decoder.DecodeAll(data, dst[:start:start+plainBytes])
	if err != nil || len(out)-start != plainBytes {
		return nil, fmt.Errorf("%w: compressed blob does not give %d bytes", storage.ErrCorrupt, plainBytes)
	}
	return out, nil
}

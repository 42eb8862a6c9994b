package shardstore_test

import (
	"context"
	"log"

	"gotong/storage"
	"gotong/storage/shardstore"
)

// Example stores one shard that came with its signed header.
func Example() {
	var header storage.SignedHeader // from storage.ParseSignedHeader
	var shard []byte
	store, err := shardstore.Open("/var/lib/gotong/shards", shardstore.Config{CapacityBytes: 50e9})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	w, err := store.CreateShard(context.Background(), header, 0, nil)
	if err != nil {
		log.Fatal(err) // storage.ErrExists, ErrQuota, ErrFull …
	}
	defer w.Abort()
	if _, err := w.Write(shard); err != nil {
		log.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		log.Fatal(err)
	}
	// The shard is on the disk now.
}

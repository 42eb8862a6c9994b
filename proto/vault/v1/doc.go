// Package vaultv1 is what a vault keeps on disk and in its segments.
package vaultv1

// Package shardsv1 is how peers give each other shards and heads.
package shardsv1

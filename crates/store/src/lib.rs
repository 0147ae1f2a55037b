//! Durable records (sled) and blobs (file system) behind two small traits

//! The bare client that `kafka.py` compares with: fills a topic with the lines of a file, and counts what is in one.
//!
//! `kafka fill SERVERS TOPIC FILE` prints how many messages were sent; `kafka count SERVERS TOPIC MESSAGES` reads so many
//! with settings at which it is fast, looks at none, and prints seconds from the first to the last.
#![allow(clippy::unwrap_used)] // a benchmark may fail

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Partitions of the topic.
const PARTITIONS: i32 = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fill", servers, topic, file] => fill(servers, topic, file),
        ["count", servers, topic, messages] => count(servers, topic, messages.parse().unwrap()),
        _ => panic!("kafka fill SERVERS TOPIC FILE, or kafka count SERVERS TOPIC MESSAGES"),
    }
}

fn fill(servers: &str, topic: &str, file: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("compression.type", "lz4")
        .set("batch.size", "1000000")
        .set("linger.ms", "20")
        .create()
        .unwrap();
    let mut sent = 0;
    for line in BufReader::new(File::open(file).unwrap()).lines() {
        let line = line.unwrap();
        // Runs of messages, as a shipper sends them.
        let partition = sent / 500 % PARTITIONS;
        let mut record: BaseRecord<'_, (), str> = BaseRecord::to(topic).partition(partition).payload(&line);
        while let Err((_, again)) = producer.send(record) {
            producer.poll(Duration::from_millis(5));
            record = again;
        }
        sent += 1;
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    println!("{sent}");
}

fn count(servers: &str, topic: &str, messages: u64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.message.max.bytes", "4194304")
        .create()
        .unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_range(topic, 0, PARTITIONS - 1);
    all.set_all_offsets(Offset::Beginning).unwrap();
    consumer.assign(&all).unwrap();
    let (mut count, mut bytes, mut began) = (0, 0, None);
    while count < messages {
        if let Some(message) = consumer.poll(Duration::from_secs(1)) {
            began.get_or_insert_with(Instant::now);
            bytes += message.unwrap().payload_len();
            count += 1;
        }
    }
    assert!(bytes > 0, "messages have payloads");
    println!("{}", began.unwrap().elapsed().as_secs_f64());
}

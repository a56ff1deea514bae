"""RabbitMQ, by way of aio-pika."""

from django.db import migrations


class Migration(migrations.Migration):
    initial = True
    replaces = [("shop", "0001_initial")]
    dependencies = [
        ("shop", "0001_initial"),  # one
        migrations.swappable_dependency("auth"),
    ]
    operations = []
